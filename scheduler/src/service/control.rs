//! What operators call.

use std::sync::Arc;

use futures::stream::BoxStream;
use hvm_api::v1;
use hvm_api::v1::control_server::Control;
use tonic::{Request, Response, Status, Streaming};

use crate::core::Core;

/// The service `Control`.
#[derive(Clone)]
pub(super) struct ControlService {
    pub(super) core: Arc<Core>,
}

#[async_trait::async_trait]
impl Control for ControlService {
    type GetBlobStream = BoxStream<'static, Result<v1::BlobChunk, Status>>;

    async fn find_missing_blobs(
        &self,
        request: Request<v1::FindMissingBlobsRequest>,
    ) -> Result<Response<v1::FindMissingBlobsResponse>, Status> {
        Ok(Response::new(super::images::find_missing(&self.core, request.into_inner()).await?))
    }

    async fn put_blob(
        &self,
        request: Request<Streaming<v1::PutBlobRequest>>,
    ) -> Result<Response<v1::PutBlobResponse>, Status> {
        super::images::put_blob(&self.core, request.into_inner()).await?;
        Ok(Response::new(v1::PutBlobResponse {}))
    }

    async fn put_image(&self, request: Request<v1::Image>) -> Result<Response<v1::PutImageResponse>, Status> {
        super::images::put_image(&self.core, request.into_inner()).await?;
        Ok(Response::new(v1::PutImageResponse {}))
    }

    async fn get_image(&self, request: Request<v1::GetImageRequest>) -> Result<Response<v1::Image>, Status> {
        Ok(Response::new(super::images::get_image(&self.core, &request.into_inner()).await?))
    }

    async fn list_images(
        &self,
        _: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        Ok(Response::new(super::images::list_images(&self.core).await?))
    }

    async fn get_blob(
        &self,
        request: Request<v1::GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        Ok(Response::new(super::images::get_blob(&self.core, &request.into_inner()).await?))
    }

    async fn plan(&self, request: Request<v1::DeployRequest>) -> Result<Response<v1::PlanResponse>, Status> {
        Ok(Response::new(super::deployments::plan(&self.core, &request.into_inner()).await?))
    }

    async fn deploy(
        &self,
        request: Request<v1::DeployRequest>,
    ) -> Result<Response<v1::DeployResponse>, Status> {
        Ok(Response::new(super::deployments::deploy(&self.core, &request.into_inner()).await?))
    }

    async fn stop(&self, request: Request<v1::StopRequest>) -> Result<Response<v1::StopResponse>, Status> {
        Ok(Response::new(super::deployments::stop(&self.core, &request.into_inner()).await?))
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(super::deployments::status(&self.core, &request.into_inner()).await?))
    }
}
